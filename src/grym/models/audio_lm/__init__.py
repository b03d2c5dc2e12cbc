"""Audio-language models of the transformers library behind one adapter.

Tables in :mod:`.families`, networks in :mod:`.network`, the model of the platform in :mod:`.adapter`.
"""
