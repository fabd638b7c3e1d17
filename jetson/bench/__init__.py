"""The verb `bench`: latency, throughput, agreement and AP of a bundle's variants on this machine."""
