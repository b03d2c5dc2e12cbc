-- Question: How much audio stands behind each result?
-- Grain: one run of the compare flow, finished or not.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   clips                                usable clips
--   scored_clips                         clips both arms answered
--   failures_a, failures_b               clips without a usable answer
--   refused                              rows of the manifest and clips that could not be used
--   audio_seconds                        length of the scored clips together, in seconds
--   reference_words                      words of their references
--   speakers                             known speakers among them
--   largest_speaker_share                share of the words that the speaker with most words has, a fraction; empty without speakers
WITH spoken AS (
    SELECT run_id, speaker, sum(reference_words) AS words
    FROM ab_clips
    WHERE scored AND speaker <> ''
    GROUP BY run_id, speaker
),
speakers AS (
    SELECT run_id, count(*) AS speakers, max(words) AS most
    FROM spoken
    GROUP BY run_id
),
length AS (
    SELECT run_id, sum(audio_seconds) FILTER (WHERE scored) AS audio_seconds
    FROM ab_clips
    GROUP BY run_id
),
early AS (
    SELECT run_id, sum(refused)::BIGINT AS refused
    FROM quarantine_by_reason
    WHERE stage IN ('manifest', 'audio')
    GROUP BY run_id
)
SELECT
    s.run_id,
    s.finished,
    s.dataset,
    s.clips,
    s.scored_clips,
    s.failures_a,
    s.failures_b,
    coalesce(e.refused, 0) AS refused,
    coalesce(l.audio_seconds, 0) AS audio_seconds,
    s.reference_words,
    coalesce(p.speakers, 0) AS speakers,
    p.most / nullif(s.reference_words, 0) AS largest_speaker_share
FROM ab_summary s
LEFT JOIN length l ON l.run_id = s.run_id
LEFT JOIN speakers p ON p.run_id = s.run_id
LEFT JOIN early e ON e.run_id = s.run_id
ORDER BY s.started_at DESC, s.run_id
