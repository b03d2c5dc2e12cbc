-- Question: Do quiet or clipped recordings explain the errors?
-- Grain: one range of 10 dB of the level, of clipped or unclipped clips, in the asked run, over the clips both arms answered.
-- Columns:
--   from_dbfs, to_dbfs                   the range: level (RMS) in dB relative to full scale, from the first up to, not including, the second
--   clipped                              whether any sample is at full scale
--   clips                                clips in it
--   audio_seconds                        their length together, in seconds
--   reference_words                      words of their references
--   wer_a, wer_b                         WER as a fraction, from summed counts
--   wer_difference                       wer_b - wer_a, a fraction
-- Variables:
--   run                                  run id; without it the comparison that finished last
WITH levelled AS (
    SELECT
        c.*,
        10 * floor(k.rms_dbfs / 10) AS level,
        k.clipped_fraction > 0 AS clipped
    FROM ab_clips c
    INNER JOIN asked_run ON asked_run.run_id = c.run_id
    INNER JOIN clips k ON k.run_id = c.run_id AND k.clip_id = c.clip_id
    WHERE c.scored AND k.rms_dbfs IS NOT NULL
)
SELECT
    level AS from_dbfs,
    level + 10 AS to_dbfs,
    clipped,
    count(*) AS clips,
    sum(audio_seconds) AS audio_seconds,
    sum(reference_words)::BIGINT AS reference_words,
    sum(errors_a) / nullif(sum(reference_words), 0) AS wer_a,
    sum(errors_b) / nullif(sum(reference_words), 0) AS wer_b,
    (sum(errors_b) - sum(errors_a)) / nullif(sum(reference_words), 0) AS wer_difference
FROM levelled
GROUP BY level, clipped
ORDER BY level DESC, clipped
