"""Print the requirements of the extras named on the command line, as pyproject.toml has them."""

import pathlib
import sys
import tomllib


def main(extras: list[str]) -> None:
    project = tomllib.loads(pathlib.Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            print(requirement)


if __name__ == "__main__":
    main(sys.argv[1:])
