"""How vectors become bytes, and come back: a file a codec, and the packing that several share."""
