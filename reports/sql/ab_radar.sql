-- Grain: one place in one run of the compare flow at which both arms agree against the reference.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   clip_id                              content id of the clip
--   key                                  name of the clip in the manifest
--   position                             reference words before the place
--   kind                                 "heard otherwise", "missed" (both heard nothing) or "added" (the reference has nothing)
--   reference                            words of the reference there
--   said                                 words of both arms there
--   errors                               errors that each arm has there, in words
--   reference_words                      words of the reference there
--   wer_a, wer_b                         word error rate of the arm over the scored clips of the run, as a fraction
--   wer_a_without, wer_b_without         the same with all these places taken out of errors and words, as a fraction
-- Example:
--   SELECT key, position, reference, said
--   FROM ab_radar
--   WHERE finished AND kind = 'heard otherwise'
--   ORDER BY run_id, errors DESC, key, position
WITH scored AS (
    SELECT
        run_id,
        sum(errors_a) AS errors_a,
        sum(errors_b) AS errors_b,
        sum(reference_words) AS words
    FROM ab_clips
    WHERE scored
    GROUP BY run_id
),
doubtful AS (
    SELECT run_id, sum(errors) AS errors, sum(reference_words) AS words
    FROM radar
    GROUP BY run_id
)
SELECT
    r.run_id,
    r.finished,
    r.dataset,
    d.clip_id,
    c."key",
    d."position",
    d.kind,
    d.reference,
    d.said,
    d.errors,
    d.reference_words,
    s.errors_a / nullif(s.words, 0) AS wer_a,
    s.errors_b / nullif(s.words, 0) AS wer_b,
    (s.errors_a - x.errors) / nullif(s.words - x.words, 0) AS wer_a_without,
    (s.errors_b - x.errors) / nullif(s.words - x.words, 0) AS wer_b_without
FROM ab_runs r
INNER JOIN radar d ON d.run_id = r.run_id
INNER JOIN doubtful x ON x.run_id = r.run_id
LEFT JOIN scored s ON s.run_id = r.run_id
LEFT JOIN clips c ON c.run_id = d.run_id AND c.clip_id = d.clip_id
