-- Grain: one value of one slice in one run of the compare flow.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   slice                                name of the slice: a column of the manifest, or "speaker"
--   value                                value of the slice
--   clips                                usable clips with this value
--   scored_clips                         clips both arms answered, the base of the error rates
--   failures_a, failures_b               clips without a usable answer: failed or held by a gate
--   reference_words                      words of the references of the scored clips
--   errors_a, errors_b                   substitutions + deletions + insertions over the scored clips, in words
--   wer_a, wer_b                         errors / reference_words as a fraction, from counts; empty without reference words
--   wer_difference                       wer_b - wer_a, a fraction
--   wer_percent_change                   100 * (wer_b - wer_a) / wer_a in percent; empty if wer_a is 0
--   latency_clips                        clips both arms answered in the latency pass
--   latency_p50_ms_a, latency_p50_ms_b   median over these clips of the time from call to answer at batch 1, in ms
--   latency_p50_ms_difference            b - a in ms
--   latency_p50_ms_percent_change        100 * (b - a) / a in percent
--   peak_rss_mb_a, peak_rss_mb_b         highest resident memory of the worker up to the end of the last batch with such a clip, in MB; grows with the run, so slices compare arms, not values
--   peak_rss_mb_difference               b - a in MB
--   peak_rss_mb_percent_change           100 * (b - a) / a in percent
--   task                                 what the models were asked: "transcribe" or "classify"
--   correct_a, correct_b                 scored clips of which the arm named all labels; empty where words count
--   accuracy_a, accuracy_b               correct / scored_clips as a fraction, mixtures included; table accuracies has the tests
--   accuracy_difference                  accuracy_b - accuracy_a, a fraction
-- Example:
--   SELECT slice, value, scored_clips, wer_a, wer_b, wer_difference
--   FROM ab_by_slice
--   WHERE finished AND scored_clips >= 10
--   ORDER BY wer_difference DESC
--   LIMIT 20
WITH counted AS (
    SELECT
        c.run_id,
        bool_or(c.finished) AS finished,
        max(c.dataset) AS dataset,
        max(c.model_a) AS model_a,
        max(c.model_b) AS model_b,
        s.slice,
        s."value",
        count(*) AS clips,
        count(*) FILTER (WHERE c.scored) AS scored_clips,
        count(*) FILTER (WHERE c.status_a <> 'ok') AS failures_a,
        count(*) FILTER (WHERE c.status_b <> 'ok') AS failures_b,
        (sum(c.reference_words) FILTER (WHERE c.scored))::BIGINT AS reference_words,
        (sum(c.errors_a) FILTER (WHERE c.scored))::BIGINT AS errors_a,
        (sum(c.errors_b) FILTER (WHERE c.scored))::BIGINT AS errors_b,
        count(*) FILTER (WHERE c.latency_ms_difference IS NOT NULL) AS latency_clips,
        quantile_cont(c.latency_ms_a, 0.5) FILTER (WHERE c.latency_ms_difference IS NOT NULL) AS latency_p50_ms_a,
        quantile_cont(c.latency_ms_b, 0.5) FILTER (WHERE c.latency_ms_difference IS NOT NULL) AS latency_p50_ms_b,
        max(c.peak_rss_mb_a) AS peak_rss_mb_a,
        max(c.peak_rss_mb_b) AS peak_rss_mb_b,
        max(c.task) AS task,
        CASE max(c.task) WHEN 'classify' THEN count(*) FILTER (WHERE c.scored AND c.correct_a) END AS correct_a,
        CASE max(c.task) WHEN 'classify' THEN count(*) FILTER (WHERE c.scored AND c.correct_b) END AS correct_b
    FROM clip_slices s
    INNER JOIN ab_clips c ON c.run_id = s.run_id AND c.clip_id = s.clip_id
    GROUP BY c.run_id, s.slice, s."value"
)
SELECT
    run_id,
    finished,
    dataset,
    model_a,
    model_b,
    slice,
    "value",
    clips,
    scored_clips,
    failures_a,
    failures_b,
    reference_words,
    errors_a,
    errors_b,
    errors_a / nullif(reference_words, 0) AS wer_a,
    errors_b / nullif(reference_words, 0) AS wer_b,
    wer_b - wer_a AS wer_difference,
    100 * (wer_b - wer_a) / nullif(wer_a, 0) AS wer_percent_change,
    latency_clips,
    latency_p50_ms_a,
    latency_p50_ms_b,
    latency_p50_ms_b - latency_p50_ms_a AS latency_p50_ms_difference,
    100 * (latency_p50_ms_b - latency_p50_ms_a) / nullif(latency_p50_ms_a, 0) AS latency_p50_ms_percent_change,
    peak_rss_mb_a,
    peak_rss_mb_b,
    peak_rss_mb_b - peak_rss_mb_a AS peak_rss_mb_difference,
    100 * (peak_rss_mb_b - peak_rss_mb_a) / nullif(peak_rss_mb_a, 0) AS peak_rss_mb_percent_change,
    task,
    correct_a,
    correct_b,
    correct_a / nullif(scored_clips, 0) AS accuracy_a,
    correct_b / nullif(scored_clips, 0) AS accuracy_b,
    accuracy_b - accuracy_a AS accuracy_difference
FROM counted
