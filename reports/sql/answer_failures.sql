-- Grain: one failure class of one arm in one run of the compare flow, over the answers that it gave.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   task                                 what the models were asked: "transcribe" or "classify"
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   failure                              refusal, repetition, empty, truncated or wrong-task
--   answers                              answers of that class; they count in all rates
--   wrong                                how many of them have a word error, or not all labels right
--   share                                answers / all answers of the arm, a fraction
--   example                              one of these texts: that of the first clip by id
-- Example:
--   SELECT dataset, model, failure, answers, share
--   FROM answer_failures
--   WHERE finished
--   ORDER BY share DESC
WITH given AS (
    SELECT
        o.run_id,
        o.arm,
        o.model,
        o.clip_id,
        coalesce(o.failure, '') AS failure,
        o.hypothesis,
        coalesce(NOT o.correct, o.substitutions + o.deletions + o.insertions > 0) AS wrong
    FROM outcomes o
    WHERE o.status = 'ok'
),
every AS (
    SELECT run_id, arm, count(*) AS answers
    FROM given
    GROUP BY run_id, arm
)
SELECT
    g.run_id,
    r.finished,
    r.dataset,
    r.task,
    g.arm,
    max(g.model) AS model,
    g.failure,
    count(*) AS answers,
    count(*) FILTER (WHERE g.wrong) AS wrong,
    count(*) / max(e.answers) AS share,
    arg_min(g.hypothesis, g.clip_id) AS example
FROM given g
INNER JOIN ab_runs r ON r.run_id = g.run_id
INNER JOIN every e ON e.run_id = g.run_id AND e.arm = g.arm
WHERE g.failure <> ''
GROUP BY g.run_id, r.finished, r.dataset, r.task, g.arm, g.failure
