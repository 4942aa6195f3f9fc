(async () => {
  const settled = request => new Promise(done => {
    request.onsuccess = request.onerror = request.onblocked = done;
  });
  const steps = [
    () => localStorage.clear(),
    () => sessionStorage.clear(),
    async () => {
      const found = await indexedDB.databases();
      await Promise.all(found.map(each => settled(indexedDB.deleteDatabase(each.name))));
    },
    async () => { for (const name of await caches.keys()) await caches.delete(name); },
    async () => { for (const each of await navigator.serviceWorker.getRegistrations()) await each.unregister(); },
  ];
  // Over plain http some of these stores do not exist.
  for (const step of steps) try { await step(); } catch {}
  document.getElementById('go').submit();
})();
