"""`lbha plan`: what to expect of a configuration, from the file alone. Pure.

waits      the single waits that make up a failover, each with its source
bounds     the longest that each fault of the drill may take, part by part
measured   a drill's own figures beside them
proof      every set of failures elects the right node
wire       what a node's keepalived says to its peers, read from its rendered file
change     from one file to another: what may be rolled from node to node
order      in which order
show       all that for people
"""
