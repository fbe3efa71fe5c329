"""What stages share: the frame of a run, its model, rewards, rules and card; above that, the supervised stages."""
