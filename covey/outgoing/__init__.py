"""What an update passes on its way out of a node, as stages: a file a stage, each with two hooks.

The worker puts a run's stages together (`covey.worker.execute.updates.encode_update`); a drill brings its own.
"""
