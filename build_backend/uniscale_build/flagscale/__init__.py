"""FlagScale's patch sets, in all their layouts, as layers and adaptations."""
