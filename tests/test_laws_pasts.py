"""What a batch may know of earlier ones, put together from extracts of days, is what a history knows that takes batches in one after the other."""
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
import pickle
from shutil import copytree

from hypothesis import given, settings, strategies as st
import pandas as pd
import pytest

from aml_miner.batches.history import EarlierDays, HistoryStore, earlier_days
from aml_miner.batches.loader import Batch, BatchError, read_batches
from aml_miner.batches.outcome_events import EVENTS
from aml_miner.batches.schema import ADDRESS_LABELS, ALERTS, FEATURES, BatchTable
from aml_miner.compute.engine import Engine

FIRST = date(2025, 1, 1)
LAW = settings(max_examples=25, derandomize=True, deadline=None, database=None)


def chain(batches, delay, days, **kept):
    "Fingerprints by a history that each batch is added to once all of its date have asked it."
    ordered, found = sorted(batches, key=lambda b: b.processing_date), {}
    with HistoryStore(**kept) as store:
        for _, same in groupby(ordered, key=lambda b: b.processing_date):
            of_date = list(same)
            for batch in of_date: found[id(batch)] = store.past(batch, delay, days).fingerprint
            for batch in of_date: store.add(batch)
    return [found[id(b)] for b in batches]


def extracted(batches, delay, days):
    "Fingerprints by extracts that went through a pickle, as those that another process made, and of which a batch is given its own alone."
    with earlier_days(batches, Engine(num_threads=2)) as earlier:
        earlier = pickle.loads(pickle.dumps(earlier))
        own = [earlier.before(b.network, b.processing_date, days) for b in batches]
        pasts = [(earlier.past(b, delay, days), few.past(b, delay, days)) for b, few in zip(batches, own)]
    assert all(whole.fingerprint == few.fingerprint for whole, few in pasts)
    return [whole.fingerprint for whole, _ in pasts]


ALERT = {"window_days": [7, 30], "alert_id": ["a1", "a2", "a3"], "typology_type": ["fan_in", "cycle"], "address": ["ann", "bo", "Zoë"],
         "severity": ["low", "high", None], "alert_confidence_score": [0., .5, None], "volume_usd": [1., 100.5], "ground_truth": [0, 1, None]}
rows = st.lists(st.tuples(*map(st.sampled_from, ALERT.values())), max_size=5, unique_by=lambda row: row[:3])
profiles = st.lists(st.tuples(st.sampled_from([7, 30]), st.sampled_from(["ann", "bo", "Zoë", "nobody"]), st.sampled_from([0., 1.5, -2., None])),
                    max_size=4, unique_by=lambda row: row[:2])
events = st.lists(st.tuples(st.sampled_from(["a1", "a2", "a3"]), st.sampled_from(list(EVENTS)), st.integers(0, 500)), max_size=4)
labels = st.none() | st.lists(st.tuples(st.sampled_from(["torus", None]), st.sampled_from(["ann", "bo"]), st.sampled_from(["low", "critical"])), max_size=3)


@st.composite
def batch(draw):
    "A batch without files: of one of two networks, one of few dates, some windows, some tables empty, its labels its own, of addresses or from events."
    day = FIRST + timedelta(days=draw(st.integers(0, 6)))
    alerts = pd.DataFrame(draw(rows), columns=list(ALERT))
    known = pd.DataFrame(draw(profiles), columns=["window_days", "address", "total_in_usd"])
    texts = {c: alerts[c].astype("str") for c in ("alert_id", "typology_type", "address", "severity")}
    numbers = {"window_days": alerts.window_days.astype(int), "ground_truth": alerts.ground_truth.astype("Int8"),
               "alert_confidence_score": alerts.alert_confidence_score.astype(float)}
    tables = {"alerts": BatchTable(ALERTS, alerts.assign(processing_date=pd.Timestamp(day), **texts, **numbers)),
              "features": BatchTable(FEATURES, known.assign(processing_date=pd.Timestamp(day), address=known.address.astype("str"),
                                                            window_days=known.window_days.astype(int), total_in_usd=known.total_in_usd.astype(float)))}
    of_addresses, told = draw(labels), draw(events)
    if of_addresses is not None:
        given_labels = pd.DataFrame(of_addresses, columns=["network", "address", "risk_level"]).astype("str").assign(label="x")
        tables["address_labels"] = BatchTable(ADDRESS_LABELS, given_labels)
    outcomes = pd.DataFrame(sorted(told, key=lambda e: e[2]), columns=["alert_id", "event", "time"])
    outcomes = outcomes.assign(time=pd.Timestamp(day, tz="UTC") + pd.to_timedelta(outcomes.time, unit="h"))
    source = "alerts" if of_addresses is None else "address_labels"
    return Batch(Path(f"{day}"), draw(st.sampled_from(["torus", "halo's"])), day, tables, {}, {}, label_source=source, outcomes=outcomes if told else None)


@LAW
@given(st.lists(batch(), max_size=6), st.sampled_from([0, 1, 3]), st.sampled_from([1, 2, 180]))
def test_extracts_of_days_know_what_a_chain_of_batches_knows(batches, delay, days):
    assert extracted(batches, delay, days) == chain(batches, delay, days)


def test_the_sample_is_known_alike(sample):
    batches = read_batches(sample)[:6]
    for delay, days in ((14, 180), (2, 4)):
        found = extracted(batches, delay, days)
        assert found == chain(batches, delay, days) == chain(batches, delay, days, profile_dates=1, keep_days=days + 1) and len({*found}) == len(found)


def test_a_day_that_is_gone_is_told_by_its_file(sample, tmp_path):
    "Profiles are read where they lie: what became of their file is said by its name."
    for day in sorted(p for p in sample.iterdir() if p.is_dir())[:2]: copytree(day, tmp_path / day.name)
    batches = read_batches(tmp_path)
    with earlier_days(batches) as earlier:
        assert len(earlier.past(batches[1], 14, 180).profiles) > 0
        (batches[0].path / "features.parquet").unlink()
        with pytest.raises(BatchError, match="features.parquet: is no longer there"): earlier.past(batches[1], 14, 180)
    assert EarlierDays([]).past(batches[1], 14, 180).n_batches == 0
