"""`scripts/soak`: what only time, or a crowd, shows. Needs root.

stress    busy loops on every core for half an hour: how often does the VIP move?
leaders   etcd's leader crashes again and again under load: what do clients see of it?
stampede  thousands of clients are told at once that their holder is gone: how fast do they come back?
week      hundreds of random faults and heals with a fixed seed: afterwards everything is as it was before
"""
