-- Question: How many units did each arm of a live experiment get, day by day?
-- Grain: one arm of one version of an experiment on one day (UTC).
-- Columns:
--   experiment                           name of the experiment
--   version                              version of its configuration
--   day                                  date of the exposures (UTC)
--   arm                                  name of the arm
--   exposures                            exposures for whatever reason
--   units                                units that were randomised into the arm and seen on that day
--   share                                units / units of all arms on that day, a fraction
--   overridden                           exposures that were overridden, forced or shadow, and count for no statistic
WITH seen AS (
    SELECT
        experiment,
        version,
        arm,
        unit,
        event_id,
        reason IN ('assigned', 'sticky') AS randomised,
        make_timestamp(at_ms * 1000)::DATE AS "day"
    FROM exposures
),

daily AS (
    SELECT
        experiment,
        version,
        "day",
        arm,
        count(DISTINCT event_id) AS exposures,
        count(DISTINCT unit) FILTER (WHERE randomised) AS units,
        count(DISTINCT event_id) FILTER (WHERE NOT randomised) AS overridden
    FROM seen
    GROUP BY experiment, version, "day", arm
)

SELECT
    experiment,
    version,
    "day",
    arm,
    exposures,
    units,
    units / nullif(sum(units) OVER (PARTITION BY experiment, version, "day"), 0) AS share,
    overridden
FROM daily
ORDER BY "day" DESC, experiment, version DESC, arm
