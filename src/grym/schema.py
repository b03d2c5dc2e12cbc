"""Every table of the platform, in one place: grain, key, columns with unit and meaning.

The landing zone writes these Arrow schemas, ``publish`` makes DuckDB tables and
comments of them, and the analysts' page is rendered from them. Knows nothing
about where the files lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Type = Literal["text", "int", "float", "bool", "time"]


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its type and what it means, unit included."""

    name: str
    type: Type
    meaning: str


@dataclass(frozen=True, slots=True)
class Table:
    """One table: what a row is, which columns identify it, and all columns."""

    name: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]


def _table(name: str, grain: str, key: str, columns: str) -> Table:
    """Read a table from lines of ``name type meaning``."""
    rows = [line.split(None, 2) for line in columns.strip().splitlines()]
    run = Column("run_id", "text", "run that wrote the row")
    parsed = tuple(Column(n, t, m) for n, t, m in rows)  # type: ignore[arg-type]
    return Table(name, grain, tuple(key.split()), (run, *parsed))


TABLES: Final[dict[str, Table]] = {
    table.name: table
    for table in (
        _table(
            "runs",
            "one state (started, finished) of one run",
            "run_id state",
            """
            state text "started" or "finished"
            flow text verb of the flow, for example "compare"
            run_key text hash of manifest, model revisions and options; the same question has the same key
            ordinal int 1 for the first run of a key
            at time when the state was reached (UTC)
            dataset text name of the dataset
            dataset_fingerprint text hash of the manifest
            arm_a text registered name of the first model
            arm_b text registered name of the second model
            options text options of the run as JSON
            versions text versions of the libraries that matter, as JSON
            hardware text processor, cores, memory, accelerator, as JSON
            flow_run_id text id of the flow run in Prefect
            task text what was asked: "transcribe" or "classify"; empty in runs of older versions, which transcribed
            run_group text id shared by the runs of one comparison on several datasets, empty if it is alone
            """,
        ),
        _table(
            "clips",
            "one usable clip in one run",
            "run_id clip_id",
            """
            clip_id text content id: sha256 of the decoded samples and the span
            key text name of the clip in the manifest
            dataset text name of the dataset
            path text file, relative to the dataset's folder
            seconds float length in seconds
            source_rate int sample rate of the file in Hz
            source_channels int channels of the file
            reference text reference text, as written in the manifest
            speaker text speaker, empty if unknown
            slices text columns that become slices, as a JSON object
            rms_dbfs float level in dB relative to full scale
            peak_dbfs float peak in dB relative to full scale
            clipped_fraction float share of samples at full scale
            silent_fraction float share of 20 ms frames below -60 dBFS
            """,
        ),
        _table(
            "quarantine",
            "one row or clip that a run could not use, or one answer a gate held back",
            "run_id key stage",
            """
            key text name of the clip or place in the manifest
            stage text where it was refused: manifest, audio, gate:NAME or model:ARM
            category text category of the error
            code text short reason, for example "too-short"
            message text the reason as a sentence
            hint text what to do about it
            severity text warning, error or critical
            """,
        ),
        _table(
            "models",
            "one model as used in one run",
            "run_id arm",
            """
            arm text "a" or "b"
            model text registered name
            revision text content hash of weights and options
            adapter text which adapter runs it
            parameters int number of parameters
            feature_dim int length of a feature vector
            rung text settings in force, for example "int8/cpu"
            licence text licence of the weights
            card text the whole capability card as JSON
            load_seconds float time to start the worker and load the weights, in seconds
            """,
        ),
        _table(
            "outcomes",
            "one clip answered by one arm in one run",
            "run_id arm clip_id",
            """
            arm text "a" or "b"
            model text registered name
            revision text content hash of weights and options
            clip_id text content id of the clip
            batch_id text planned batch the clip belonged to
            status text "ok", "failed" (no answer) or "held" (a gate refused the answer)
            hypothesis text what the model said, as it said it
            confidence float in [0, 1]
            tokens int tokens emitted
            segments text word segments as JSON: start and end in seconds, text, confidence
            rung text settings in force
            compute_seconds float compute time attributed to the clip in the throughput pass, in seconds
            error_category text category of the failure, empty if ok
            error_code text short reason of the failure
            error_message text the failure as a sentence
            normalizer text name, version and hash of the normaliser used for scoring
            reference_words int words of the normalised reference
            hits int words right
            substitutions int words wrong
            deletions int words missing
            insertions int words added
            reference_characters int characters of the normalised reference, without spaces
            character_errors int unit-cost edits of characters, without spaces
            failure text what is wrong with the answer as a text: refusal, repetition, empty, truncated or wrong-task
            label text right label of the clip, of a mixture all of them with " + " between; empty where words count
            predicted text as many labels as are right, the most probable ones; empty where words count
            label_scores text probability of each label as a JSON object
            correct bool whether all predicted labels are right
            any_correct bool whether at least one of them is
            """,
        ),
        _table(
            "words",
            "one aligned position of one outcome",
            "run_id arm clip_id position",
            """
            arm text "a" or "b"
            clip_id text content id of the clip
            position int position in the alignment, from 0
            operation text "ok", "sub", "del" or "ins"
            reference text word of the reference, empty for an insertion
            hypothesis text word of the model, empty for a deletion
            """,
        ),
        _table(
            "operations",
            "one call to one model",
            "run_id arm pass call",
            """
            arm text "a" or "b"
            model text registered name
            pass text "warmup", "throughput" or "latency"
            call text planned batch, or clip and repeat in the latency pass
            clip_id text the clip in the latency pass, else empty
            clips int clips in the call
            audio_seconds float audio in the call, in seconds
            wall_seconds float time from the call to the answer, seen by the caller, in seconds
            compute_seconds float time inside the model, in seconds
            cpu_seconds float processor time of the worker during the call, in seconds
            peak_rss_mb float highest resident memory of the worker so far, in MB
            rung text settings in force
            status text "ok" or "failed"
            """,
        ),
        _table(
            "attempts",
            "one try of one call that failed",
            "run_id arm call attempt worker_pid",
            """
            arm text "a" or "b"
            call text planned batch, or clip
            attempt int from 1
            worker_pid int process id of the worker
            at time when it failed (UTC)
            category text category of the error
            code text short reason
            message text the error as a sentence
            retryable bool whether it was tried again
            action text what was done: retry, restart, split, give up; "answered" if a later try went well
            model text registered name of the model, empty in comparisons
            operation text what the model was asked, empty in comparisons
            delay_seconds float wait before the next try, in seconds
            """,
        ),
        _table(
            "quality",
            "one rule evaluated on one batch",
            "run_id suite subject rule",
            """
            suite text name of the expectation suite
            subject text what was judged: batch and arm
            rule text name of the rule
            severity text critical, warning or info
            status text "pass", "fail" or "not evaluated"
            evaluated int rows judged
            unexpected int rows that broke the rule
            observed text what was observed, as text
            reason text why the rule exists
            """,
        ),
        _table(
            "comparisons",
            "one metric of one pair in one run",
            "run_id metric",
            """
            arm_a text registered name of the first model
            arm_b text registered name of the second model
            metric text wer, cer, accuracy, latency_p50, latency_p95, rtfx, peak_rss_mb, failures; see docs/verdicts.md
            unit text unit of a, b and difference
            a float value of the first model, in the metric's unit
            b float value of the second model, in the metric's unit
            difference float b - a, in the metric's unit
            percent_change float 100 * (b - a) / a in percent, empty if a is 0
            ci_low float lower end of the confidence interval of the difference, in the metric's unit
            ci_high float upper end of the confidence interval of the difference, in the metric's unit
            confidence float level of the interval as a fraction, for example 0.95
            p_value float two-sided p-value of the difference
            method text how interval and p-value were obtained
            clusters int independent units behind the interval
            clips int clips both arms answered
            margin float equivalence margin in the metric's unit
            verdict text "a better", "b better", "equivalent" or "cannot tell"
            sentence text the verdict in one sentence
            """,
        ),
        _table(
            "accuracies",
            "label accuracy in one part of one labelled comparison, over the clips both arms answered",
            "run_id slice value",
            """
            slice text "events" (all clips), "label", "speaker" or a column of the manifest (clips of the verdict)
            value text value of the slice; of "events": "one" or "several"
            clips int clips both arms answered
            right_a int clips of which the first model got every label right
            right_b int clips of which the second model got every label right
            both_right int clips both got right
            only_a_right int clips only the first got right
            only_b_right int clips only the second got right
            both_wrong int clips both got wrong
            any_right_a int clips of which the first model got a label right
            any_right_b int clips of which the second model got a label right
            accuracy_a float right_a / clips, a fraction
            accuracy_b float right_b / clips, a fraction
            difference float accuracy_b - accuracy_a, a fraction
            ci_low float lower end of the confidence interval of the difference, a fraction
            ci_high float upper end of the confidence interval of the difference, a fraction
            p_value float two-sided p-value of the exact McNemar test over clips
            adjusted float p-value corrected over all parts of the run that were tested (Benjamini-Hochberg)
            stands_out bool whether adjusted is at most 0.05
            """,
        ),
        _table(
            "probes",
            "one linear probe that answered for an arm which cannot name labels itself",
            "run_id arm",
            """
            arm text "a" or "b"
            model text registered name of the model whose features it reads
            probe text identity: hash of model, settings, training clips and labels
            trained_on text name of the dataset that it was fitted on
            fingerprint text hash of the training clips and their labels
            clips int clips that it was fitted on
            labels text the labels as a JSON list
            feature_dim int length of a feature vector
            l2 float strength of the penalty that was chosen, a fraction of a clip's log loss for a squared weight of 2
            cv_accuracy float share of training clips whose labels it got right when they were held out, a fraction
            cv_folds int parts of the training clips that were held out in turn
            seconds float time to fit it, features included, in seconds; 0 if it was stored already
            """,
        ),
        _table(
            "looks",
            "one look at one comparison that may stop early",
            "run_id look",
            """
            look int number of the look, from 1
            clips int clips both arms had answered
            planned int clips that would be answered without a stop
            reference_words int words of their references
            differing int clips on which the arms made a different number of errors
            clusters int speakers (or clips, where speakers are unknown) seen so far
            a float word error rate of the first model so far, as a fraction
            b float word error rate of the second model so far, as a fraction
            difference float b - a, as a fraction
            ci_low float lower end of the confidence sequence, as a fraction
            ci_high float upper end of the confidence sequence, as a fraction
            confidence float level of the sequence as a fraction, for all looks together
            p_value float p-value that holds however often one looks
            verdict text "a better", "b better", "equivalent" or "cannot tell"
            decided bool whether the run stopped here
            """,
        ),
        _table(
            "analyses",
            "one way of scoring the answers of one comparison",
            "run_id normalizer compounds fillers weighting cluster",
            """
            normalizer text none, basic or english
            compounds text "kept", or "merged": written as one word where another text of the clip does so
            fillers text "kept" or "dropped"
            weighting text "words" (every word the same weight) or "clips" (every clip the same weight)
            cluster text what is taken as independent: "speaker" or "clip"
            chosen bool whether the settings of the run say so
            a float word error rate of the first model, as a fraction
            b float word error rate of the second model, as a fraction
            difference float b - a, as a fraction
            ci_low float lower end of the confidence interval, as a fraction
            ci_high float upper end of the confidence interval, as a fraction
            p_value float two-sided p-value, for this analysis alone
            clusters int independent units behind it
            verdict text "a better", "b better", "equivalent" or "cannot tell"
            agrees bool whether this is the verdict of the chosen analysis
            """,
        ),
        _table(
            "tests",
            "one further test of the difference of word error rates of one comparison; the verdict rests on none",
            "run_id test",
            """
            test text mapsswe, mcnemar, sign, wilcoxon, bootstrap or equivalence
            unit text what n counts
            n int observations behind the test
            statistic float Z of mapsswe; clips only the first arm has right; clusters in which the second is worse
            p_value float two-sided p-value; of equivalence: of the difference lying inside the margin of the run
            ci_low float lower end of the bootstrap interval of b - a, as a fraction
            ci_high float upper end of the bootstrap interval of b - a, as a fraction
            enough bool whether there are enough observations, six at least, to say anything
            """,
        ),
        _table(
            "blame",
            "one part of the difference of word error rates of one comparison",
            "run_id dimension name value",
            """
            dimension text words, speakers or slices; the parts of one (of slices, of one name) add up to b - a
            name text "word" (said, not heard so), "inserted" (heard, not said), "speaker", or the name of the slice
            value text the word, the speaker, or the value of the slice; "(none)" where a clip has none
            errors_a int errors of the first model in this part, in words
            errors_b int errors of the second model in this part, in words
            reference_words int words of the references in this part; 0 for an insertion
            contribution float what the part adds to b - a, as a fraction of all reference words
            clips int clips in which the arms made a different number of these errors
            examples text content ids of up to five of them as a JSON list, those first that push the same way
            """,
        ),
        _table(
            "radar",
            "one place at which both arms agree against the reference",
            "run_id clip_id position",
            """
            clip_id text content id of the clip
            position int reference words before the place
            kind text "heard otherwise", "missed" (both heard nothing) or "added" (the reference has nothing)
            reference text words of the reference there
            said text words of both arms there
            errors int errors that each arm has there, in words
            reference_words int words of the reference there
            """,
        ),
        _table(
            "repeats",
            "one repeated answer of one arm to one clip, for the noise floor",
            "run_id arm clip_id repeat",
            """
            arm text "a" or "b"
            clip_id text content id of the clip
            repeat int from 1
            status text "ok" or "failed"
            hypothesis text what the model said
            reference_words int words of the normalised reference
            errors int substitutions, deletions and insertions, in words
            """,
        ),
        _table(
            "noise",
            "the variance of the word error rate of one arm in one run, split",
            "run_id arm",
            """
            arm text "a" or "b"
            model text registered name
            repeats int answers to each clip
            clips int clips answered every time
            reference_words int words of their references
            wer float word error rate over all repeats, as a fraction
            changed int clips whose number of errors was not always the same
            within_sd float standard deviation of the rate of one run that comes from decoding, as a fraction
            between_sd float standard deviation of the rate that comes from clips and speakers, as a fraction
            within_share float share of decoding in the variance of the rate of one run
            floor float half of the interval of the difference of two runs of this model, as a fraction
            confidence float level of that interval as a fraction
            """,
        ),
        _table(
            "requests",
            "one clip of one request that was answered, or not, through a route",
            "run_id request_id clip_id",
            """
            request_id text id of the request
            clip_id text content id of the clip
            route text name of the route
            operation text what was asked
            at time when the request came (UTC)
            status text "ok" or "failed"
            primary text registered name of the model that should answer
            served_by text registered name of the model that answered, empty if none did
            revision text content hash of weights and options of the model that answered
            rung text settings in force
            place int place of the answering model in the route: 0 is the primary; empty if none answered
            failed_over bool whether another model than the primary answered
            refused text who was asked or passed over before, as JSON: model, code, seconds
            confidence float in [0, 1]
            wall_seconds float from the request to the answer, in seconds
            lost_seconds float of it, the time until the answering model was asked, in seconds
            error_category text category of the failure, empty if ok
            error_code text short reason of the failure
            error_message text the failure as a sentence
            hint text what to do about it
            """,
        ),
        _table(
            "health",
            "one check of one model",
            "run_id check_id",
            """
            check_id text id of the check
            model text registered name
            revision text content hash of weights and options, empty if it could not be loaded
            at time when the check began (UTC)
            healthy bool whether it answered the known clip rightly and in time
            code text short reason if not: wrong-answer, or the code of the error
            message text the reason as a sentence
            hint text what to do about it
            expected text what the clip says
            heard text what the model said
            wer float word error rate of the answer, as a fraction
            load_seconds float time to start and load the model, in seconds; 0 if it was warm
            wall_seconds float time from the question to the answer, in seconds
            deadline_seconds float time that it had for the answer, in seconds
            asked_by text "watch", "command" or "live"
            """,
        ),
        _table(
            "events",
            "one change of state of something that is watched",
            "run_id event_id",
            """
            event_id text id of the event
            at time when (UTC)
            kind text breaker, failover or health
            subject text what changed: model/operation, route or model
            before text state before
            after text state after: open, half-open, closed; name of the model that serves; healthy, unhealthy
            reason text code of the error that caused it, if one did
            """,
        ),
        _table(
            "alerts",
            "one alert",
            "run_id alert_id",
            """
            alert_id text id of the alert
            at time when it was raised (UTC)
            kind text what raised it, for example breaker, failover, health or audit
            subject text what it is about: model/operation, route, model or experiment
            severity text warning, error or critical
            status text "new" when it was raised
            message text what happened, as a sentence
            hint text what to do about it
            suppressed int like alerts that were held back by the cool-down since the last one
            """,
        ),
        _table(
            "experiments",
            "one version of one experiment that has run",
            "experiment version",
            """
            experiment text name of the experiment
            version int version of its configuration
            digest text sha256 of the canonical configuration
            config text the configuration as canonical JSON
            at time when it was registered (UTC)
            """,
        ),
        _table(
            "exposures",
            "one use of an arm for one unit",
            "experiment version event_id",
            """
            experiment text name of the experiment
            version int version of its configuration
            digest text sha256 of the canonical configuration
            unit text id of what was randomised: a user, a session, a request
            arm text name of the arm
            bucket float where the unit lies, in [0, 1]; empty if nothing was hashed
            reason text assigned, sticky, override, forced or shadow; only the first two are randomised
            at_ms int when, in milliseconds since 1970 (UTC)
            event_id text id of the event; the same event reported twice is one row
            """,
        ),
        _table(
            "measurements",
            "one value of one metric for one request of one unit",
            "experiment version event_id",
            """
            experiment text name of the experiment
            version int version of its configuration
            unit text id of what was randomised
            arm text name of the arm
            metric text name of the metric
            value float what was measured, in the metric's unit
            weight float denominator of a ratio, in the metric's units of it; empty counts as 1
            covariate float what was known before the exposure, in the metric's units of it
            at_ms int when, in milliseconds since 1970 (UTC)
            event_id text id of the event; the same event reported twice is one row
            request_id text the request that was measured
            """,
        ),
        _table(
            "decisions",
            "one decision on one version of one experiment",
            "experiment version decision",
            """
            experiment text name of the experiment
            version int version of its configuration
            digest text sha256 of the canonical configuration
            decision text sha256 of the record: the decision's identity
            at time when it was made (UTC)
            until_ms int events up to then were counted, in milliseconds since 1970 (UTC); empty means all
            verdict text INVALID, ROLLBACK, SHIP, HOLD or EQUIVALENT
            arm text the treatment that the verdict is about, empty if it is about the experiment
            units int units of all arms
            srm_p float always-valid p-value of the configured shares
            metric text the primary metric
            delta float treatment minus control, in the metric's unit; of the arm, else of the first treatment
            ci_low float lower end of its always-valid interval, in the metric's unit
            ci_high float upper end of its always-valid interval, in the metric's unit
            p_value float its always-valid p-value
            recommendation text what to do, in plain words
            record text canonical JSON of everything that went in and came out; it replays to the same bytes
            """,
        ),
        _table(
            "audits",
            "one rate measured by one self-audit",
            "run_id rate",
            """
            rate text what was counted: false-positives, false-ships, false-rollbacks or srm-alarms
            at time when the audit ran (UTC)
            experiment text name of the audited configuration
            digest text sha256 of the canonical configuration
            outcomes text which recorded outcomes both arms drew from
            generator text named random generator and seed
            replicates int simulated experiments
            looks int looks at each of them
            units int units in each of them
            hits int replicates in which it happened
            measured float hits / replicates, a fraction
            low float lower end of its 95 % Clopper-Pearson interval, a fraction
            high float upper end of its 95 % Clopper-Pearson interval, a fraction
            at_most float its one-sided upper 95 % bound, a fraction
            promise float what was promised, a fraction
            kept bool whether at_most does not exceed the promise
            """,
        ),
    )
}
