"""Runs under this coordinator's care, whatever their mode: queue, preparation, offers, commits, replay."""
