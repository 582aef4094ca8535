"""What trained models give: an entry of docs/gallery is a function of `entries`, made anew by `make gallery NAME=digits`."""

from benchmarks.gallery import entries as entries
from benchmarks.gallery import origins as origins
from benchmarks.gallery import variational as variational
