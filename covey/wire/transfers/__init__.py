"""Files over streams: who may send now, chunks that are checked one by one, writing beside the event loop."""
