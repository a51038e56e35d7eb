"""What lbha costs and how fast it is, measured in labs and told in one table.

figures                              a measurement's values, their median and worst, the table: pure
failover  check  idle  live  render  the parts, each with labs of its own
timing                               how long programs run, from inside a node's namespace
extra                                one more apiserver and one more etcd member beside the lab's own
"""
