-- Question: How does the WER change with the signal-to-noise ratio, speaker by speaker?
-- Grain: one value of the slice "noise" (the signal-to-noise ratio, in the bundled corpus) and one speaker of the asked run.
-- Columns:
--   value                                value of the slice, for example "clean" or "10dB"
--   speaker                              speaker
--   clips                                clips both arms answered
--   reference_words                      words of their references; few words say little
--   errors_a, errors_b                   substitutions + deletions + insertions, in words
--   wer_a, wer_b                         WER as a fraction, from summed counts
--   wer_difference                       wer_b - wer_a, a fraction
-- Variables:
--   run                                  run id; without it the comparison that finished last
--   slice                                another slice to cross with the speaker, for example length; without it noise
SELECT
    n."value",
    c.speaker,
    count(*) AS clips,
    sum(c.reference_words)::BIGINT AS reference_words,
    sum(c.errors_a)::BIGINT AS errors_a,
    sum(c.errors_b)::BIGINT AS errors_b,
    sum(c.errors_a) / nullif(sum(c.reference_words), 0) AS wer_a,
    sum(c.errors_b) / nullif(sum(c.reference_words), 0) AS wer_b,
    (sum(c.errors_b) - sum(c.errors_a)) / nullif(sum(c.reference_words), 0) AS wer_difference
FROM ab_clips c
INNER JOIN asked_run ON asked_run.run_id = c.run_id
INNER JOIN clip_slices n
    ON n.run_id = c.run_id AND n.clip_id = c.clip_id AND n.slice = coalesce(getvariable('slice')::VARCHAR, 'noise')
WHERE c.scored AND c.speaker <> ''
GROUP BY n."value", c.speaker
ORDER BY n."value", c.speaker
