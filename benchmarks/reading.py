"""What reading costs: a bank's CSV through a column map beside AMLworld's layout of the same rows.

    python benchmarks/reading.py [--rows 5000000] [--repeats 3]

The rows are generated in AMLworld's layout and written again as a German bank would: semicolons, decimal commas, days as 31.01.2025, a word as outcome.
Each reading is a process of its own, in turn: seconds, CPU seconds, peak memory; then the rows that were written, and whether both tables hold the same
payments."""
import argparse
import json
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time

import duckdb
import numpy as np

from aml_miner.transactions.amlworld_example import write_amlworld_example

MAP = """separator: ";"
decimal: ","
timestamp: Buchung
timestamp_format: "%d.%m.%Y"
source_account: [Bank, Konto]
target_account: [Bank des Empfängers, Empfänger]
amount: Betrag
currency: Währung
payment_format: Art
labels: {flag: Meldung, positive: [gemeldet], negative: [ohne Befund]}
"""
AS_BANK = """COPY (SELECT strftime(strptime(c0, '%Y/%m/%d %H:%M'), '%d.%m.%Y %H:%M') AS Buchung, ltrim(c1, '0') AS Bank, c2 AS Konto,
    ltrim(c3, '0') AS "Bank des Empfängers", c4 AS Empfänger, replace(c7, '.', ',') AS Betrag, c8 AS Währung, c9 AS Art,
    CASE c10 WHEN '1' THEN 'gemeldet' ELSE 'ohne Befund' END AS Meldung
    FROM read_csv('{source}', header = false, skip = 1, delim = ',', columns = {{{columns}}}))
    TO '{target}' (HEADER, DELIMITER ';')"""
READ = {"AMLworld's reader": "from aml_miner.transactions.amlworld import read_amlworld as read; read(sys.argv[1], sys.argv[2])",
        "column map": "from aml_miner.transactions.mapped import read_mapped as read; read(sys.argv[1], sys.argv[2], sys.argv[3])"}
MEASURED = """import json, resource, sys, time
from loguru import logger
logger.remove()
start = time.perf_counter()
{read}
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6]))"""


def write_files(folder, rows):
    "The same rows in both layouts, and the map."
    source, _ = write_amlworld_example(folder, rows=rows)
    columns = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(11))
    duckdb.execute(AS_BANK.format(source=source, target=folder/"bank.csv", columns=columns))
    (folder/"map.yaml").write_text(MAP)
    return {"AMLworld's reader": source, "column map": folder/"bank.csv"}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        files = write_files(folder, args.rows)
        sizes = ", ".join(f"{n}: {f.stat().st_size / 1e6:,.0f} MB" for n, f in files.items())
        print(f"{args.rows:,} rows made in {time.perf_counter() - start:.0f} s; {sizes}")
        figures = {reader: [] for reader in READ}
        for _ in range(args.repeats):
            for reader, read in READ.items():
                command = [sys.executable, "-c", MEASURED.format(read=read), files[reader], folder/f"{reader[:3]}.parquet", folder/"map.yaml"]
                figures[reader].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        print(f"{'':<20}{'seconds':>16}{'CPU seconds':>16}{'peak GB':>10}{'rows written':>15}")
        for reader, runs in figures.items():
            wall, cpu, peak = np.array(runs).T
            written = duckdb.execute(f"SELECT count(*) FROM '{folder}/{reader[:3]}.parquet'").fetchall()[0][0]
            print(f"{reader:<20}{wall.mean():>9.1f} ±{np.ptp(wall) / 2:>5.1f}{cpu.mean():>9.1f} ±{np.ptp(cpu) / 2:>5.1f}{peak.max():>10.2f}{written:>15,}")
        one, two = (f"'{folder}/{reader[:3]}.parquet'" for reader in READ)
        columns = "tx_id, timestamp, source_account, target_account, amount, currency, payment_format, is_laundering"
        differ = duckdb.execute(f"SELECT count(*) FROM ((SELECT {columns} FROM {one} EXCEPT SELECT {columns} FROM {two}))").fetchall()[0][0]
        print(f"payments that differ between the two tables: {differ:,}")
    print(f"peak of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__": main()
