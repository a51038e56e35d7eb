"""`lbha doctor`: what will hurt later and can be seen now.

    model       findings, checks, outcomes
    registry    every check there is, in one place
    context     the facts of this node that several checks share
    examine     all checks at once, each with a deadline
    show        for people and for programs
    recipe_*    the same for keepalived.conf and haproxy.cfg files that lbha did not write

A room is a module of checks about one thing. Its judges are pure, over facts that thin shells have gathered; a
check is a shell and a judge. What cannot be looked at is told as not checked, never as good.
"""
