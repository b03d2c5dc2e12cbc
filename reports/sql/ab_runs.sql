-- Grain: one run of the compare flow, finished or not.
-- Columns:
--   run_id                               run
--   run_key                              hash of the question; the same question has the same key
--   ordinal                              1 for the first run of a key
--   finished                             whether the run reached its end
--   started_at, finished_at              when the run started and ended (UTC)
--   dataset                              name of the dataset
--   model_a, model_b                     registered name of the model of the arm
--   revision_a, revision_b               content hash of weights and options of the arm's model
--   rung_a, rung_b                       settings in force in the arm, for example "int8/cpu"
--   hardware                             processor, cores, memory, accelerator, as JSON
--   task                                 what the models were asked: "transcribe" or "classify"
--   run_group                            id shared by the runs of one comparison on several datasets; empty if it is alone
-- Example:
--   SELECT finished_at, dataset, model_a, revision_a, model_b, revision_b
--   FROM ab_runs
--   WHERE finished
--   ORDER BY finished_at DESC
WITH compared AS (
    SELECT
        run_id,
        max(run_key) AS run_key,
        max(ordinal) AS ordinal,
        bool_or(state = 'finished') AS finished,
        min("at") FILTER (WHERE state = 'started') AS started_at,
        max("at") FILTER (WHERE state = 'finished') AS finished_at,
        max(dataset) AS dataset,
        max(arm_a) AS model_a,
        max(arm_b) AS model_b,
        max(hardware) FILTER (WHERE state = 'started') AS hardware,
        coalesce(max(task), 'transcribe') AS task,
        coalesce(max(run_group) FILTER (WHERE state = 'finished'), max(run_group), '') AS run_group
    FROM runs
    WHERE flow = 'compare'
    GROUP BY run_id
)
SELECT
    r.run_id,
    r.run_key,
    r.ordinal,
    r.finished,
    r.started_at,
    r.finished_at,
    r.dataset,
    r.model_a,
    r.model_b,
    a.revision AS revision_a,
    b.revision AS revision_b,
    a.rung AS rung_a,
    b.rung AS rung_b,
    r.hardware,
    r.task,
    r.run_group
FROM compared r
LEFT JOIN models a ON a.run_id = r.run_id AND a.arm = 'a'
LEFT JOIN models b ON b.run_id = r.run_id AND b.arm = 'b'
