"""What a run goes through, whatever its mode: preparation, a check of its files, evaluation, commit, its end."""
