"""`python -m infra.grafana`: write the dashboards as JSON, for Grafana to load."""

import argparse
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from infra.grafana.flow import flow
from infra.grafana.models import models
from infra.grafana.stores import stores

DASHBOARDS = {"flow": flow, "models": models, "stores": stores}


def main(arguments: list[str] | None = None) -> int:
    """Write one file for each dashboard and say where (0); 1 where that cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.grafana",
        description="Write the dashboards as JSON into a folder, for Grafana's provisioning (see provisioning/).",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path("build/grafana"), help="default: %(default)s")
    folder: Path = parser.parse_args(arguments).folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, make in DASHBOARDS.items():
            text = JSONEncoder(sort_keys=True, indent=2).encode(make())
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        print(f"grafana: {folder}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{len(DASHBOARDS)} dashboards in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
