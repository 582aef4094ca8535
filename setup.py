"""What pyproject.toml cannot say: the top-level kernels/ travels in the wheel as refdiff/_kernels."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["refdiff", "refdiff.*"]), "refdiff._kernels"],
    package_dir={"refdiff._kernels": "kernels"},
    package_data={
        "refdiff": ["py.typed"],
        "refdiff.engines.cuda": ["tiles/*.json"],
        "refdiff.data": ["digits.npz", "digits.LICENSE.md"],
        "refdiff._kernels": ["*.cu", "*.cuh", "README.md"],
    },
)
