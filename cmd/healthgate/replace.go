package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// replaceFile replaces a file's content as a whole or not at all, and keeps its mode and owner. It is an error if the content has
// changed since it was read.
func replaceFile(name string, before, after []byte) (err error) {
	if name, err = filepath.EvalSymlinks(name); err != nil {
		return err
	}
	info, err := os.Stat(name)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file: nothing is written", name)
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), ".healthgate-*")
	if err != nil {
		return fmt.Errorf("nothing is written: %w", err)
	}
	defer os.Remove(temporary.Name())
	_, err = temporary.Write(after)
	if owner, known := info.Sys().(*syscall.Stat_t); known {
		err = errors.Join(err, temporary.Chown(int(owner.Uid), int(owner.Gid)))
	}
	err = errors.Join(err, temporary.Chmod(info.Mode().Perm()), temporary.Sync(), temporary.Close())
	if err != nil {
		return fmt.Errorf("nothing is written: %w", err)
	}
	if now, err := os.ReadFile(name); err != nil || !bytes.Equal(now, before) {
		return errors.Join(fmt.Errorf("nothing is written: %s has changed meanwhile", name), err)
	}
	if err := os.Rename(temporary.Name(), name); err != nil {
		return fmt.Errorf("nothing is written: %w", err)
	}
	return nil
}
