-- Grain: one run of the compare flow, finished or not.
-- Columns:
--   run_id                               run
--   run_key                              hash of the question; the same question has the same key
--   finished                             whether the run reached its end
--   started_at, finished_at              when the run started and ended (UTC)
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   clips                                usable clips
--   scored_clips                         clips both arms answered, the base of the error rates
--   failures_a, failures_b               clips without a usable answer: failed + held
--   failed_a, failed_b                   clips the model gave no answer to
--   held_a, held_b                       clips whose answer a gate refused
--   reference_words                      words of the references of the scored clips
--   substitutions_a, substitutions_b     words wrong over the scored clips
--   deletions_a, deletions_b             words missing over the scored clips
--   insertions_a, insertions_b           words added over the scored clips
--   wer_a, wer_b                         (S + D + I) / reference_words as a fraction, from counts; empty without reference words
--   wer_difference                       wer_b - wer_a, a fraction
--   wer_percent_change                   100 * (wer_b - wer_a) / wer_a in percent; empty if wer_a is 0
--   cer_a, cer_b                         character errors / characters without spaces over the scored clips, a fraction
--   cer_difference                       cer_b - cer_a, a fraction
--   cer_percent_change                   100 * (cer_b - cer_a) / cer_a in percent
--   latency_clips                        clips both arms answered in the latency pass
--   latency_p50_ms_a, latency_p50_ms_b   median over these clips of the time from call to answer at batch 1, in ms
--   latency_p50_ms_difference            b - a in ms
--   latency_p50_ms_percent_change        100 * (b - a) / a in percent
--   latency_p95_ms_a, latency_p95_ms_b   95th percentile over these clips, interpolated, in ms
--   latency_p95_ms_difference            b - a in ms
--   latency_p95_ms_percent_change        100 * (b - a) / a in percent
--   rtfx_a, rtfx_b                       seconds of audio per second of the throughput pass
--   rtfx_difference                      b - a in seconds of audio per second
--   rtfx_percent_change                  100 * (b - a) / a in percent
--   peak_rss_mb_a, peak_rss_mb_b         highest resident memory of the worker in MB
--   peak_rss_mb_difference               b - a in MB
--   peak_rss_mb_percent_change           100 * (b - a) / a in percent
--   wer_ci_low, wer_ci_high              confidence interval of wer_difference, fractions
--   wer_p_value                          two-sided p-value of wer_difference
--   verdict                              verdict on the WER or the accuracy: "a better", "b better", "equivalent" or "cannot tell"; empty until tested
--   sentence                             the verdict in one sentence
--   task                                 what the models were asked: "transcribe" or "classify"
--   run_group                            id shared by the runs of one comparison on several datasets; empty if it is alone
--   labelled_clips                       clips behind the accuracy: answered by both, with one label if there are such; empty where words count
--   accuracy_a, accuracy_b               share of them with the right label, a fraction
--   accuracy_difference                  accuracy_b - accuracy_a, a fraction
--   accuracy_ci_low, accuracy_ci_high    confidence interval of accuracy_difference, fractions
--   accuracy_p_value                     two-sided p-value of accuracy_difference, by the exact McNemar test where clips are independent
--   mixtures_right_a, mixtures_right_b   share of the clips with several labels of which all are right, a fraction; empty without such clips
--   failure_classes_a, failure_classes_b  answers that are a refusal, a loop, empty, truncated or about another task
-- Example:
--   SELECT started_at, dataset, model_a, model_b, wer_a, wer_b, latency_p50_ms_percent_change, verdict
--   FROM ab_summary
--   WHERE finished
--   ORDER BY started_at DESC
WITH counted AS (
    SELECT
        run_id,
        count(*) AS clips,
        count(*) FILTER (WHERE scored) AS scored_clips,
        count(*) FILTER (WHERE status_a = 'failed') AS failed_a,
        count(*) FILTER (WHERE status_b = 'failed') AS failed_b,
        count(*) FILTER (WHERE status_a = 'held') AS held_a,
        count(*) FILTER (WHERE status_b = 'held') AS held_b,
        (sum(reference_words) FILTER (WHERE scored))::BIGINT AS reference_words,
        (sum(substitutions_a) FILTER (WHERE scored))::BIGINT AS substitutions_a,
        (sum(substitutions_b) FILTER (WHERE scored))::BIGINT AS substitutions_b,
        (sum(deletions_a) FILTER (WHERE scored))::BIGINT AS deletions_a,
        (sum(deletions_b) FILTER (WHERE scored))::BIGINT AS deletions_b,
        (sum(insertions_a) FILTER (WHERE scored))::BIGINT AS insertions_a,
        (sum(insertions_b) FILTER (WHERE scored))::BIGINT AS insertions_b,
        (sum(errors_a) FILTER (WHERE scored)) / nullif(sum(reference_words) FILTER (WHERE scored), 0) AS wer_a,
        (sum(errors_b) FILTER (WHERE scored)) / nullif(sum(reference_words) FILTER (WHERE scored), 0) AS wer_b,
        (sum(character_errors_a) FILTER (WHERE scored))
            / nullif(sum(reference_characters) FILTER (WHERE scored), 0) AS cer_a,
        (sum(character_errors_b) FILTER (WHERE scored))
            / nullif(sum(reference_characters) FILTER (WHERE scored), 0) AS cer_b,
        count(*) FILTER (WHERE latency_ms_difference IS NOT NULL) AS latency_clips,
        quantile_cont(latency_ms_a, 0.5) FILTER (WHERE latency_ms_difference IS NOT NULL) AS latency_p50_ms_a,
        quantile_cont(latency_ms_b, 0.5) FILTER (WHERE latency_ms_difference IS NOT NULL) AS latency_p50_ms_b,
        quantile_cont(latency_ms_a, 0.95) FILTER (WHERE latency_ms_difference IS NOT NULL) AS latency_p95_ms_a,
        quantile_cont(latency_ms_b, 0.95) FILTER (WHERE latency_ms_difference IS NOT NULL) AS latency_p95_ms_b,
        count(*) FILTER (WHERE failure_a <> '') AS failure_classes_a,
        count(*) FILTER (WHERE failure_b <> '') AS failure_classes_b
    FROM ab_clips
    GROUP BY run_id
),
speed AS (
    SELECT
        run_id,
        arm,
        sum(audio_seconds) FILTER (WHERE "pass" = 'throughput' AND status = 'ok')
            / nullif(sum(wall_seconds) FILTER (WHERE "pass" = 'throughput' AND status = 'ok'), 0) AS rtfx,
        max(peak_rss_mb) AS peak_rss_mb
    FROM operations
    GROUP BY run_id, arm
)
SELECT
    r.run_id,
    r.run_key,
    r.finished,
    r.started_at,
    r.finished_at,
    r.dataset,
    r.model_a,
    r.model_b,
    coalesce(c.clips, 0) AS clips,
    coalesce(c.scored_clips, 0) AS scored_clips,
    coalesce(c.failed_a + c.held_a, 0) AS failures_a,
    coalesce(c.failed_b + c.held_b, 0) AS failures_b,
    coalesce(c.failed_a, 0) AS failed_a,
    coalesce(c.failed_b, 0) AS failed_b,
    coalesce(c.held_a, 0) AS held_a,
    coalesce(c.held_b, 0) AS held_b,
    coalesce(c.reference_words, 0) AS reference_words,
    coalesce(c.substitutions_a, 0) AS substitutions_a,
    coalesce(c.substitutions_b, 0) AS substitutions_b,
    coalesce(c.deletions_a, 0) AS deletions_a,
    coalesce(c.deletions_b, 0) AS deletions_b,
    coalesce(c.insertions_a, 0) AS insertions_a,
    coalesce(c.insertions_b, 0) AS insertions_b,
    c.wer_a,
    c.wer_b,
    c.wer_b - c.wer_a AS wer_difference,
    100 * (c.wer_b - c.wer_a) / nullif(c.wer_a, 0) AS wer_percent_change,
    c.cer_a,
    c.cer_b,
    c.cer_b - c.cer_a AS cer_difference,
    100 * (c.cer_b - c.cer_a) / nullif(c.cer_a, 0) AS cer_percent_change,
    coalesce(c.latency_clips, 0) AS latency_clips,
    c.latency_p50_ms_a,
    c.latency_p50_ms_b,
    c.latency_p50_ms_b - c.latency_p50_ms_a AS latency_p50_ms_difference,
    100 * (c.latency_p50_ms_b - c.latency_p50_ms_a) / nullif(c.latency_p50_ms_a, 0) AS latency_p50_ms_percent_change,
    c.latency_p95_ms_a,
    c.latency_p95_ms_b,
    c.latency_p95_ms_b - c.latency_p95_ms_a AS latency_p95_ms_difference,
    100 * (c.latency_p95_ms_b - c.latency_p95_ms_a) / nullif(c.latency_p95_ms_a, 0) AS latency_p95_ms_percent_change,
    a.rtfx AS rtfx_a,
    b.rtfx AS rtfx_b,
    b.rtfx - a.rtfx AS rtfx_difference,
    100 * (b.rtfx - a.rtfx) / nullif(a.rtfx, 0) AS rtfx_percent_change,
    a.peak_rss_mb AS peak_rss_mb_a,
    b.peak_rss_mb AS peak_rss_mb_b,
    b.peak_rss_mb - a.peak_rss_mb AS peak_rss_mb_difference,
    100 * (b.peak_rss_mb - a.peak_rss_mb) / nullif(a.peak_rss_mb, 0) AS peak_rss_mb_percent_change,
    w.ci_low AS wer_ci_low,
    w.ci_high AS wer_ci_high,
    w.p_value AS wer_p_value,
    t.verdict,
    t.sentence,
    r.task,
    r.run_group,
    l.clips AS labelled_clips,
    l.a AS accuracy_a,
    l.b AS accuracy_b,
    l.difference AS accuracy_difference,
    l.ci_low AS accuracy_ci_low,
    l.ci_high AS accuracy_ci_high,
    l.p_value AS accuracy_p_value,
    x.a AS mixtures_right_a,
    x.b AS mixtures_right_b,
    coalesce(c.failure_classes_a, 0) AS failure_classes_a,
    coalesce(c.failure_classes_b, 0) AS failure_classes_b
FROM ab_runs r
LEFT JOIN counted c ON c.run_id = r.run_id
LEFT JOIN speed a ON a.run_id = r.run_id AND a.arm = 'a'
LEFT JOIN speed b ON b.run_id = r.run_id AND b.arm = 'b'
LEFT JOIN comparisons w ON w.run_id = r.run_id AND w.metric = 'wer'
LEFT JOIN comparisons l ON l.run_id = r.run_id AND l.metric = 'accuracy'
LEFT JOIN comparisons x ON x.run_id = r.run_id AND x.metric = 'accuracy_mixtures'
LEFT JOIN comparisons t ON t.run_id = r.run_id AND t.metric = CASE r.task WHEN 'classify' THEN 'accuracy' ELSE 'wer' END
