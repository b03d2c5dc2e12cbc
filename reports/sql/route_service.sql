-- Grain: one model of one route on one day, whether it answered or not.
-- Columns:
--   day               date of the requests (UTC)
--   route             name of the route
--   model             registered name of the model
--   place             its place in the route: 0 is the primary
--   clips             clips of all requests of the route on that day
--   answered          clips that this model answered
--   passed_over       clips that it was asked for, or skipped because its breaker was open, and did not answer
--   share             answered / clips, a fraction
--   wall_ms_p95       95th percentile of the time from the request to its answers, in ms
--   lost_ms_p95       95th percentile of the part of it before this model was asked, in ms
-- Example:
--   SELECT day, route, model, answered, passed_over, round(share, 4) AS share
--   FROM route_service
--   ORDER BY day DESC, route, place
WITH asked AS (
    SELECT
        "at"::DATE AS "day",
        route,
        served_by,
        place,
        wall_seconds,
        lost_seconds,
        from_json(refused, '[["VARCHAR"]]') AS refusals
    FROM requests
),
days AS (
    SELECT "day", route, count(*) AS clips
    FROM asked
    GROUP BY "day", route
),
answered AS (
    SELECT
        "day",
        route,
        served_by AS model,
        min(place) AS place,
        count(*) AS answered,
        quantile_cont(1000 * wall_seconds, 0.95) AS wall_ms_p95,
        quantile_cont(1000 * lost_seconds, 0.95) AS lost_ms_p95
    FROM asked
    WHERE served_by <> ''
    GROUP BY "day", route, served_by
),
one_refusal AS (
    SELECT "day", route, unnest(refusals) AS refusal, generate_subscripts(refusals, 1) - 1 AS place
    FROM asked
),
passed AS (
    SELECT "day", route, refusal[1] AS model, min(place) AS place, count(*) AS passed_over
    FROM one_refusal
    GROUP BY "day", route, refusal[1]
)
SELECT
    d."day",
    d.route,
    coalesce(a.model, p.model) AS model,
    coalesce(a.place, p.place) AS place,
    d.clips,
    coalesce(a.answered, 0) AS answered,
    coalesce(p.passed_over, 0) AS passed_over,
    coalesce(a.answered, 0) / d.clips AS share,
    a.wall_ms_p95,
    a.lost_ms_p95
FROM answered a
FULL JOIN passed p ON p."day" = a."day" AND p.route = a.route AND p.model = a.model
INNER JOIN days d ON d."day" = coalesce(a."day", p."day") AND d.route = coalesce(a.route, p.route)
