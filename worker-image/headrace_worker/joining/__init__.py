"""The join of a FanOutJob: the branches' answers to a record become one, whatever order they were given in."""
