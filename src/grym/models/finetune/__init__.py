"""Fine-tuning of registered models by LoRA or in full, in a process of its own.

The recipe is in :mod:`.recipe`, what differs between kinds of models in :mod:`.kinds`, the training itself in
:mod:`.trainer`, and what starts it in :mod:`.process`; the last and the first import no torch.
"""
