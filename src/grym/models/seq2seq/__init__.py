"""Speech-to-text models of encoder and decoder, above all the Whisper family.

Windows and their seams in :mod:`.stitch`, networks in :mod:`.network`, the model of the platform in :mod:`.adapter`.
"""
