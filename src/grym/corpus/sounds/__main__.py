"""``python -m grym.corpus.sounds``: generate a split; see :mod:`grym.corpus.sounds.bundle`."""

from grym.corpus.sounds.bundle import main

main()
