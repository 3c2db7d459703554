"""What a free lock costs: one process for each setting, in which all subjects take turns."""
