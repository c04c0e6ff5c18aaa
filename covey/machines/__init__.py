"""What pure state machines share: the protocol of events and actions, who takes part, what evaluation is due."""
