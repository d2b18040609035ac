//! `submit_read` and `submit_write`, for each type that has a `submit` with `is_modifier`.

macro_rules! read_and_write {
    () => {
        /// [`submit`](Self::submit) of an operation that only reads: it shares its key with others
        /// that do.
        ///
        /// # Errors
        /// Those of [`submit`](Self::submit).
        pub fn submit_read<S, A, O, M>(&self, store: &Arc<S>, op: O, args: A) -> Result<AsyncRequest<O::Output>>
        where
            S: ?Sized + Send + Sync + 'static,
            A: Args + Send + 'static,
            O: Operation<S, A, M> + Send + 'static,
            O::Output: Send + 'static,
        {
            self.submit(store, op, false, args)
        }

        /// [`submit`](Self::submit) of an operation that changes something (`is_modifier`): it has
        /// its key for itself.
        ///
        /// # Errors
        /// Those of [`submit`](Self::submit).
        pub fn submit_write<S, A, O, M>(&self, store: &Arc<S>, op: O, args: A) -> Result<AsyncRequest<O::Output>>
        where
            S: ?Sized + Send + Sync + 'static,
            A: Args + Send + 'static,
            O: Operation<S, A, M> + Send + 'static,
            O::Output: Send + 'static,
        {
            self.submit(store, op, true, args)
        }
    };
}
pub(super) use read_and_write;
