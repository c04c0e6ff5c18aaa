"""What nodes and the coordinator say to each other: sessions, messages, enrolment, and limits on all of it."""
