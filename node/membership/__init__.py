"""Becoming and staying a member of a federation: tokens, enrolment, the session, renewal."""
