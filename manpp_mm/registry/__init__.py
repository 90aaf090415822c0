"""Registration of local backbones; each module needs its package. MMPretrain's ConvNeXt is registered in the others."""
