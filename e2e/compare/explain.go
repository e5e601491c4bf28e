package main

import "context"

const command = "the command's explain"

func (r *Run) compareExplained(ctx context.Context) (*Disagreement, error) { return nil, nil }
