"""GAMA on current libraries: a CAV-MAE audio branch, a Q-Former and an aggregator in front of Llama with LoRA.

Importing this package imports no torch. Read :mod:`.configuration` for every size,
:mod:`.modeling` for the network, :mod:`.convert` for the published checkpoints and
:mod:`.adapter` for the model that a comparison uses.

Source: GAMA, arXiv 2406.11768 (EMNLP 2024). Written from shapes and formulas, not from the released code.
"""
