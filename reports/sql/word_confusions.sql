-- Grain: one reference word and what one arm made of it in one run, over the clips both arms answered.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   operation                            "sub" (another word), "del" (nothing) or "ins" (a word where there was none)
--   reference                            word of the normalised reference, empty for an insertion
--   hypothesis                           word of the normalised answer, empty for a deletion
--   times                                how often it happened, in words
--   clips                                clips in which it happened
--   reference_times                      how often the reference word was spoken in these clips, in words; empty for an insertion
--   share                                times / reference_times as a fraction; empty for an insertion
-- Example:
--   SELECT model, reference, hypothesis, times, share
--   FROM word_confusions
--   WHERE finished AND operation = 'sub'
--   ORDER BY times DESC, model, reference, hypothesis
--   LIMIT 20
WITH counted AS (
    SELECT
        w.run_id,
        c.finished,
        c.dataset,
        w.arm,
        CASE w.arm WHEN 'a' THEN c.model_a ELSE c.model_b END AS model,
        w.operation,
        w.reference,
        w.hypothesis,
        count(*) AS times,
        count(DISTINCT w.clip_id) AS clips
    FROM words w
    INNER JOIN ab_clips c ON c.run_id = w.run_id AND c.clip_id = w.clip_id
    WHERE c.scored
    GROUP BY ALL
),
shared AS (
    SELECT
        *,
        CASE
            WHEN operation <> 'ins'
                THEN (sum(times) FILTER (WHERE operation <> 'ins') OVER (PARTITION BY run_id, arm, reference))::BIGINT
        END AS reference_times
    FROM counted
)
SELECT *, times / reference_times AS share
FROM shared
WHERE operation <> 'ok'
