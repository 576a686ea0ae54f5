"""Time and memory of the monitoring rules on generated transactions with a hub, each size in a fresh process, printed as a table.

    python benchmarks/monitoring.py [--rows 250000 500000 1000000] [--memory-limit 1GB]

The cost of a row should stay what it is, whatever the number of rows: one account takes part in every fiftieth transaction."""
import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time

TRANSACTIONS = """CREATE TABLE transactions AS
    WITH draw AS (SELECT i, hash(i, 1) % 1000000 / 1e6 AS a, hash(i, 2) % 1000000 / 1e6 AS b, hash(i, 3) % 1000000 / 1e6 AS c, hash(i, 4) % 2592000 AS s
        FROM range({rows}) t(i)),
    ends AS (SELECT *, CASE WHEN i % 100 = 0 THEN 0 ELSE 1 + (a * {rows} / 10)::BIGINT END AS payer,
        CASE WHEN i % 100 = 50 THEN 0 WHEN c < 0.7 THEN 1 + (hash((a * {rows} / 10)::BIGINT, (b * 5)::INT) % ({rows} // 10))::BIGINT
             ELSE 1 + (b * {rows} / 10)::BIGINT END AS payee FROM draw)
    SELECT i + 1 AS tx_id, TIMESTAMP '2024-01-01' + to_seconds(s::BIGINT) AS timestamp, 'a' || payer AS source_account, 'a' || payee AS target_account,
        round(exp(4 + 6 * a * c + b), 2) AS amount_usd, amount_usd AS amount, 'US Dollar' AS currency,
        amount_usd AS amount_received, 'US Dollar' AS currency_received,
        ['ach', 'cheque', 'wire', 'card'][1 + (payer % 3 + (c > 0.98)::INT)] AS payment_format,
        NULL::TINYINT AS is_laundering, NULL::VARCHAR AS attempt_id, NULL::VARCHAR AS typology
    FROM ends ORDER BY timestamp, tx_id"""


def measure(rows: int, memory_limit: str) -> dict:
    "Run the rules once in this process."
    from aml_miner.config.model_config import load_config
    from aml_miner.monitoring.rules import find_alerts
    from aml_miner.batches.schema import connect

    def cpu(): return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])

    with tempfile.TemporaryDirectory() as scratch, connect(memory_limit=memory_limit) as con:
        con.execute(f"SET temp_directory = '{scratch}'")
        con.execute(TRANSACTIONS.format(rows=rows))
        before, start = cpu(), time.perf_counter()
        alerts = len(find_alerts(con, load_config().monitoring).fetchall())
        return {"alerts": alerts, "cpu": cpu() - before, "wall": time.perf_counter() - start, "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def main() -> int:
    "Command line."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 500_000, 1_000_000], help="transactions")
    parser.add_argument("--memory-limit", default="1GB", help="of DuckDB")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)  # one size, in this process, as JSON
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.memory_limit)))
        return 0
    print(f"{'transactions':>12} {'alerts':>9} {'CPU s':>7} {'wall s':>7} {'CPU us a row':>13} {'peak GB':>8}")
    for rows in args.rows:
        done = subprocess.run([sys.executable, __file__, "--only", str(rows), "--memory-limit", args.memory_limit], capture_output=True, text=True, check=True)
        m = json.loads(done.stdout)
        print(f"{rows:12,} {m['alerts']:9,} {m['cpu']:7.1f} {m['wall']:7.1f} {1e6 * m['cpu'] / rows:13.1f} {m['gb']:8.2f}")
    return 0


if __name__ == "__main__": sys.exit(main())
