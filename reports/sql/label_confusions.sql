-- Grain: right labels of clips and what one arm took them for in one run, over the clips both arms answered.
-- Columns:
--   run_id                               run
--   finished                             whether the run reached its end
--   dataset                              name of the dataset
--   arm                                  "a" or "b"
--   model                                registered name of the model of the arm
--   label                                right label, of a mixture all of them with " + " between
--   predicted                            labels of the arm, the most probable first
--   clips                                clips in which it happened
--   label_clips                          clips with that label
--   share                                clips / label_clips as a fraction
-- Example:
--   SELECT model, label, predicted, clips, share
--   FROM label_confusions
--   WHERE finished
--   ORDER BY clips DESC, model, label, predicted
WITH answered AS (
    SELECT run_id, finished, dataset, 'a' AS arm, model_a AS model, label, predicted_a AS predicted, correct_a AS correct
    FROM ab_clips
    WHERE scored AND task = 'classify'
    UNION ALL
    SELECT run_id, finished, dataset, 'b' AS arm, model_b AS model, label, predicted_b AS predicted, correct_b AS correct
    FROM ab_clips
    WHERE scored AND task = 'classify'
),
counted AS (
    SELECT *, count(*) OVER (PARTITION BY run_id, arm, label) AS label_clips
    FROM answered
)
SELECT
    run_id,
    finished,
    dataset,
    arm,
    model,
    label,
    predicted,
    count(*) AS clips,
    max(label_clips) AS label_clips,
    count(*) / max(label_clips) AS share
FROM counted
WHERE NOT correct
GROUP BY run_id, finished, dataset, arm, model, label, predicted
