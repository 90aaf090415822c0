"""What is registered where; each module needs its package, and MMPretrain's ConvNeXt serves the others."""
