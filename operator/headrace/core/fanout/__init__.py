"""The decisions about a FanOutJob. All that is known about running one batch stays where it is: a branch is an InferenceBatch."""
