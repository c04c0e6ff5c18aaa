from covey.library.federation import Federation as Federation
from covey.library.federation import connect as connect
from covey.library.federation import local as local
from covey.library.federation import simulate as simulate
from covey.library.run import FederatedRun as FederatedRun
from covey.library.sweep import sweep as sweep

__version__: str
