-- Question: How does each live experiment stand?
-- Grain: one version of an experiment that was registered.
-- Columns:
--   experiment                           name of the experiment
--   version                              version of its configuration
--   registered_at                        when it was registered (UTC)
--   decided_at                           when it was decided on last (UTC); empty: never
--   verdict                              INVALID, ROLLBACK, SHIP, HOLD or EQUIVALENT; empty without a decision
--   arm                                  the treatment that the verdict is about; empty if it is about the experiment
--   units                                units of all arms at that moment
--   metric                               the primary metric
--   delta                                treatment minus control, in the metric's unit
--   ci_low, ci_high                      ends of its always-valid interval, in the metric's unit
--   srm_p                                always-valid p-value of the configured shares; small means the split is broken
--   decisions                            decisions on record
--   recommendation                       what to do, in plain words
WITH registered AS (
    SELECT experiment, version, min("at") AS registered_at
    FROM experiments
    GROUP BY experiment, version
),

decided AS (
    SELECT
        *,
        count(*) OVER same AS decisions,
        row_number() OVER (PARTITION BY experiment, version ORDER BY "at" DESC, decision DESC) AS place
    FROM decisions
    WINDOW same AS (PARTITION BY experiment, version)
)

SELECT
    r.experiment,
    r.version,
    r.registered_at,
    d."at" AS decided_at,
    d.verdict,
    d.arm,
    d.units,
    d.metric,
    d.delta,
    d.ci_low,
    d.ci_high,
    d.srm_p,
    coalesce(d.decisions, 0)::BIGINT AS decisions,
    d.recommendation
FROM registered r
LEFT JOIN decided d ON d.experiment = r.experiment AND d.version = r.version AND d.place = 1
ORDER BY r.experiment, r.version DESC
