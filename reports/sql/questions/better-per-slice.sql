-- Question: Which model is better on which slice of the audio, and by how much?
-- Grain: one value of one slice of the asked run.
-- Columns:
--   slice                                name of the slice: a column of the manifest, or "speaker"
--   value                                value of the slice
--   clips                                clips both arms answered
--   reference_words                      words of their references; few words say little
--   wer_a, wer_b                         WER as a fraction, from summed counts
--   wer_difference                       wer_b - wer_a, a fraction; below 0 the second model makes fewer errors
--   errors_difference                    errors of b - errors of a, in words
--   fewer_errors                         "a", "b" or "same"; a count, not a verdict: slices are not tested
-- Variables:
--   run                                  run id; without it the comparison that finished last
SELECT
    s.slice,
    s."value",
    s.scored_clips AS clips,
    s.reference_words,
    s.wer_a,
    s.wer_b,
    s.wer_difference,
    s.errors_b - s.errors_a AS errors_difference,
    CASE WHEN s.errors_b < s.errors_a THEN 'b' WHEN s.errors_b > s.errors_a THEN 'a' ELSE 'same' END AS fewer_errors
FROM ab_by_slice s
INNER JOIN asked_run ON asked_run.run_id = s.run_id
WHERE s.scored_clips > 0
ORDER BY s.slice, s.wer_difference DESC, s."value"
