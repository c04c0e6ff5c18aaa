"""The `node.toml` that a node gets when it enrols: every key with its default, in comments."""

from __future__ import annotations

DEFAULT_SETTINGS = """\
# What this node's operator allows. Runs that ask for more are declined, with the reason.
# Changes count from the next start of the node.

[policy]
# Tasks that runs may name; add those of packages that you installed here.
# tasks = ["digits", "idx-images", "characters", "synthetic", "grid-world"]

# Tasks that runs may name by import path. Their code runs with this node's rights.
# allow_paths = ["my_package.tasks:Tumours"]

# What may leave this node: whole parameters, the change of them, or one gradient.
# payloads = ["parameters", "delta", "gradient"]

# What methods may ask of how many examples there are of each label: "off", "noisy" (with noise) or "exact". Updates of
# the last layer tell much of it whatever is written here.
# label_counts = "off"

# Of how few examples statistics of this node's data may say something; without it runs of method "statistics" get none.
# min_k = 10

# Whether methods may have what a model makes of single examples, with their labels: such embeddings show much of the
# examples themselves.
# representations = false

# Most that one run may spend of the privacy of this node's examples (epsilon, for a delta of max_delta or less), and
# the least noise multiplier. With either, runs are declined that do not hide single examples by this node's own noise.
# max_epsilon = 3.0
# max_delta = 1e-5
# least_noise = 1.0

# Most runs at once (1 to 16), each training in its turn; without it, one for each GiB of memory.
# max_runs = 4

# What the coordinator gets of this node's log about the runs that it takes part in: "none", "failures" (of a task that
# failed its traceback, and the last lines that the worker printed) or "all". What a task prints may show data.
# share_logs = "none"
# Whether paths of this machine are taken out of that, and of the reasons for which this node declines.
# scrub_paths = false

# Least nodes that take part in a round, this one included, as the coordinator announces it.
# min_participants = 1
# When work is begun, and on which days; what was begun is finished. Hours past midnight belong to the day before.
# hours = "22:00-06:00"
# time_zone = "Europe/Berlin"
# days = ["mon", "tue", "wed", "thu", "fri"]

# What updates and metrics pass before they leave: plug-ins of this machine, which change or refuse (covey plugins).
# outgoing = [{ name = "clip-norm", options = { most = 10.0 } }]

[limits]
# Most disk for the model of one run, and the files that come beside it, in GiB; without it, what is free.
# disk_gib = 20
# Most connections over which one large file comes or goes, where the way is long (1 to 4).
# connections = 4
# How long a job may go without a step (seconds); runs may ask for less ([training] stall_s), never for more.
# stall_s = 540
# Most memory of the worker's own, in GiB, the program itself (about 1) included; mapped files and a GPU's memory apart.
# memory_gib = 16
# How long one training, or one evaluation, may take (seconds).
# round_s = 3600
# Most parameters of a model; most passes over the data in one round.
# parameters = 1_000_000_000
# epochs = 5
# Least examples of one step, and behind one update or gradient: of very few, one can be read off.
# least_batch_size = 8
# least_examples = 32

[worker]
# Variables of this program's environment that the tasks' code may see, beside paths, locale and those of Python,
# PyTorch and CUDA.
# environment = ["MY_DATA"]

[peers]
# For gossip runs: where other nodes call this one, and by which address, where that is another one. Without it, this
# node only calls; where others cannot be called either, all of them wait at a relay (covey relay start).
# listen = "0.0.0.0:7410"
# advertise = "clinic-a.example.org:7410"
# relay = "relay.example.org:443"
# How long a pause of another node is borne, in seconds, before its silence is suspicious. Where nodes are to wait for
# one that is started again, rather than go on without it meanwhile, say more.
# pause_s = 3
# What an exchange survives: the end of this program ("process"), or a power cut too ("power": it waits for the disk).
# durability = "process"
# Most disk for models of other nodes that come, and wait here to be mixed in, in GiB; what does not fit is refused for
# now, and stays with its sender. Without it, what is free.
# quota_gib = 20

[data.paths]
# Where a task finds this node's data. Never sent to anyone.
# images = "/srv/images"

[data.options]
# Numbers and names that a task asks of this node. Never sent to anyone.
"""
