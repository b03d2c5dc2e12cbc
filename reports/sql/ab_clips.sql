-- Grain: one clip in one run of the compare flow, answered or not.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   clip_id                              content id of the clip
--   key                                  name of the clip in the manifest
--   speaker                              speaker, empty if unknown
--   slices                               columns that become slices, as a JSON object
--   audio_seconds                        length of the clip in seconds
--   model_a, model_b                     registered name of the model of the arm
--   status_a, status_b                   "ok", "failed" (no answer), "held" (a gate refused the answer), empty if not yet run
--   scored                               whether both arms answered, so that the clip counts in the rates
--   reference                            reference text, as written in the manifest
--   hypothesis_a, hypothesis_b           what the model said
--   reference_words                      words of the normalised reference
--   errors_a, errors_b                   substitutions + deletions + insertions, in words
--   errors_difference                    errors_b - errors_a, in words
--   substitutions_a, substitutions_b     words wrong
--   deletions_a, deletions_b             words missing
--   insertions_a, insertions_b           words added
--   reference_characters                 characters of the normalised reference, without spaces
--   character_errors_a, character_errors_b  unit-cost edits of characters, without spaces
--   wer_a, wer_b                         errors / reference_words as a fraction; empty without reference words. Never average it: sum errors and words
--   wer_difference                       wer_b - wer_a, a fraction
--   wer_percent_change                   100 * (wer_b - wer_a) / wer_a in percent; empty if wer_a is 0
--   compute_seconds_a, compute_seconds_b  compute time attributed to the clip in the throughput pass, in seconds
--   compute_seconds_difference           b - a in seconds
--   compute_seconds_percent_change       100 * (b - a) / a in percent
--   latency_ms_a, latency_ms_b           time from call to answer at batch 1 in ms, median of the repeats; empty for clips outside the latency sample
--   latency_ms_difference                b - a in ms
--   latency_ms_percent_change            100 * (b - a) / a in percent
--   peak_rss_mb_a, peak_rss_mb_b         highest resident memory of the worker up to the end of the clip's batch, in MB
--   peak_rss_mb_difference               b - a in MB
--   peak_rss_mb_percent_change           100 * (b - a) / a in percent
--   task                                 what the models were asked: "transcribe" or "classify"
--   label                                right label of the clip, of a mixture all of them with " + " between; empty where words count
--   predicted_a, predicted_b             as many labels as are right, the most probable ones
--   correct_a, correct_b                 whether all of them are right
--   any_correct_a, any_correct_b         whether at least one of them is
--   failure_a, failure_b                 what is wrong with the answer as a text: refusal, repetition, empty, truncated, wrong-task; empty if nothing
-- Example:
--   SELECT key, reference, hypothesis_a, hypothesis_b, errors_difference
--   FROM ab_clips
--   WHERE scored AND errors_difference > 0
--   ORDER BY errors_difference DESC, key
--   LIMIT 20
WITH latency AS (
    SELECT run_id, arm, clip_id, 1000 * median(wall_seconds) AS ms
    FROM operations
    WHERE "pass" = 'latency' AND status = 'ok' AND wall_seconds IS NOT NULL
    GROUP BY run_id, arm, clip_id
),
answers AS (
    SELECT
        o.*,
        o.status = 'ok' AND o.reference_words + o.substitutions + o.deletions + o.insertions
            + o.reference_characters + o.character_errors IS NOT NULL AS counted,
        o.status = 'ok' AND o.correct IS NOT NULL AS labelled,
        latency.ms AS latency_ms,
        batch.peak_rss_mb
    FROM outcomes o
    LEFT JOIN latency ON latency.run_id = o.run_id AND latency.arm = o.arm AND latency.clip_id = o.clip_id
    LEFT JOIN operations batch
        ON batch.run_id = o.run_id AND batch.arm = o.arm AND batch."pass" = 'throughput' AND batch."call" = o.batch_id
)
SELECT
    r.run_id,
    r.finished,
    r.dataset,
    c.clip_id,
    c."key",
    coalesce(c.speaker, '') AS speaker,
    c.slices,
    c.seconds AS audio_seconds,
    r.model_a,
    r.model_b,
    a.status AS status_a,
    b.status AS status_b,
    coalesce((a.counted AND b.counted) OR (a.labelled AND b.labelled), false) AS scored,
    c.reference,
    a.hypothesis AS hypothesis_a,
    b.hypothesis AS hypothesis_b,
    coalesce(a.reference_words, b.reference_words) AS reference_words,
    a.substitutions + a.deletions + a.insertions AS errors_a,
    b.substitutions + b.deletions + b.insertions AS errors_b,
    errors_b - errors_a AS errors_difference,
    a.substitutions AS substitutions_a,
    b.substitutions AS substitutions_b,
    a.deletions AS deletions_a,
    b.deletions AS deletions_b,
    a.insertions AS insertions_a,
    b.insertions AS insertions_b,
    coalesce(a.reference_characters, b.reference_characters) AS reference_characters,
    a.character_errors AS character_errors_a,
    b.character_errors AS character_errors_b,
    errors_a / nullif(a.reference_words, 0) AS wer_a,
    errors_b / nullif(b.reference_words, 0) AS wer_b,
    wer_b - wer_a AS wer_difference,
    100 * (wer_b - wer_a) / nullif(wer_a, 0) AS wer_percent_change,
    a.compute_seconds AS compute_seconds_a,
    b.compute_seconds AS compute_seconds_b,
    b.compute_seconds - a.compute_seconds AS compute_seconds_difference,
    100 * (b.compute_seconds - a.compute_seconds) / nullif(a.compute_seconds, 0) AS compute_seconds_percent_change,
    a.latency_ms AS latency_ms_a,
    b.latency_ms AS latency_ms_b,
    b.latency_ms - a.latency_ms AS latency_ms_difference,
    100 * (b.latency_ms - a.latency_ms) / nullif(a.latency_ms, 0) AS latency_ms_percent_change,
    a.peak_rss_mb AS peak_rss_mb_a,
    b.peak_rss_mb AS peak_rss_mb_b,
    b.peak_rss_mb - a.peak_rss_mb AS peak_rss_mb_difference,
    100 * (b.peak_rss_mb - a.peak_rss_mb) / nullif(a.peak_rss_mb, 0) AS peak_rss_mb_percent_change,
    r.task,
    coalesce(a.label, b.label) AS label,
    a.predicted AS predicted_a,
    b.predicted AS predicted_b,
    a.correct AS correct_a,
    b.correct AS correct_b,
    a.any_correct AS any_correct_a,
    b.any_correct AS any_correct_b,
    a.failure AS failure_a,
    b.failure AS failure_b
FROM ab_runs r
INNER JOIN clips c ON c.run_id = r.run_id
LEFT JOIN answers a ON a.run_id = r.run_id AND a.clip_id = c.clip_id AND a.arm = 'a'
LEFT JOIN answers b ON b.run_id = r.run_id AND b.clip_id = c.clip_id AND b.arm = 'b'
